// An application that its sidecar calls over gRPC: it answers calls, takes the
// events of a topic, jobs and a binding, and tells how many came.
//
// app PORT

#include <grpcpp/grpcpp.h>

#include <iostream>
#include <map>
#include <mutex>
#include <string>

#include "dapr/proto/runtime/v1/appcallback.grpc.pb.h"

namespace common = dapr::proto::common::v1;
namespace runtime = dapr::proto::runtime::v1;
using google::protobuf::Empty;
using grpc::ServerContext;
using grpc::Status;
using grpc::StatusCode;

class App final : public runtime::AppCallback::Service {
  Status OnInvoke(ServerContext*, const common::InvokeRequest* request,
                  common::InvokeResponse* response) override {
    if (request->method() == "echo") {
      response->set_content_type(request->content_type());
      *response->mutable_data() = request->data();
      return Status::OK;
    }
    if (request->method() == "count") {
      response->set_content_type("text/plain");
      std::lock_guard<std::mutex> guard(lock_);
      const int count = counts_[request->data().value()];
      response->mutable_data()->set_value(std::to_string(count));
      return Status::OK;
    }
    return Status(StatusCode::NOT_FOUND, "no method " + request->method());
  }

  Status ListTopicSubscriptions(ServerContext*, const Empty*,
                                runtime::ListTopicSubscriptionsResponse* response) override {
    auto* subscription = response->add_subscriptions();
    subscription->set_pubsub_name("broker");
    subscription->set_topic("orders");
    return Status::OK;
  }

  Status OnTopicEvent(ServerContext*, const runtime::TopicEventRequest* event,
                      runtime::TopicEventResponse* response) override {
    response->set_status(runtime::TopicEventResponse::SUCCESS);
    return Count("event " + event->data());
  }

  Status ListInputBindings(ServerContext*, const Empty*,
                           runtime::ListInputBindingsResponse* response) override {
    response->add_bindings("tick");
    return Status::OK;
  }

  Status OnBindingEvent(ServerContext*, const runtime::BindingEventRequest* event,
                        runtime::BindingEventResponse*) override {
    return Count("binding " + event->name());
  }

  Status OnJobEvent(ServerContext*, const runtime::JobEventRequest* event,
                    runtime::JobEventResponse*) override {
    return Count("job " + event->name() + " " + event->data().value());
  }

  Status Count(const std::string& what) {
    std::lock_guard<std::mutex> guard(lock_);
    ++counts_[what];
    return Status::OK;
  }

  std::mutex lock_;
  std::map<std::string, int> counts_;
};

int main(int count, char** arguments) {
  if (count != 2) {
    std::cerr << "usage: app PORT\n";
    return 2;
  }
  App app;
  grpc::ServerBuilder builder;
  const std::string address = std::string("127.0.0.1:") + arguments[1];
  builder.AddListeningPort(address, grpc::InsecureServerCredentials());
  builder.RegisterService(&app);
  auto server = builder.BuildAndStart();
  if (!server) {
    std::cerr << "cannot listen on " << address << "\n";
    return 1;
  }
  server->Wait();
}
