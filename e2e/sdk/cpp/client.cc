// A client of a sidecar: state, secrets, events, calls, bindings and jobs of
// the application beside it. Ends with 0 if all is as it should be.
//
// client GRPC_PORT APP_ID

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <iostream>
#include <string>
#include <thread>

#include "dapr/proto/runtime/v1/dapr.grpc.pb.h"

namespace common = dapr::proto::common::v1;
namespace runtime = dapr::proto::runtime::v1;
using google::protobuf::Empty;
using grpc::ClientContext;
using grpc::Status;
using grpc::StatusCode;

// What anything may take on a busy machine.
constexpr auto kTimeout = std::chrono::seconds(30);

class Client {
 public:
  Client(const std::string& address, std::string id)
      : stub_(runtime::Dapr::NewStub(
            grpc::CreateChannel(address, grpc::InsecureChannelCredentials()))),
        id_(std::move(id)) {}

  void Check() {
    State();
    Secrets();
    Want(Invoke("echo", "hello") == "hello", "the application echoes");
    Want(Call(&Stub::InvokeService, Method("paint", ""), common::InvokeResponse()) ==
             StatusCode::NOT_FOUND, "no such method");
    runtime::PublishEventRequest event;
    event.set_pubsub_name("broker");
    event.set_topic("orders");
    event.set_data("one");
    event.set_data_content_type("text/plain");
    Done(&Stub::PublishEvent, event);
    Comes("event one");
    Comes("binding tick");
    runtime::ScheduleJobRequest job;
    job.mutable_job()->set_name("once");
    job.mutable_job()->set_due_time("0s");
    job.mutable_job()->mutable_data()->set_value("now");
    Want(Call(&Stub::ScheduleJob, job, runtime::ScheduleJobResponse()) == StatusCode::OK, "a job");
    Comes("job once now");
  }

 private:
  using Stub = runtime::Dapr::Stub;

  void State() {
    runtime::SaveStateRequest save;
    save.set_store_name("store");
    auto* item = save.add_states();
    item->set_key("k");
    item->set_value("1");
    Done(&Stub::SaveState, save);
    runtime::GetStateRequest get;
    get.set_store_name("store");
    get.set_key("k");
    runtime::GetStateResponse got;
    Want(Call(&Stub::GetState, get, got) == StatusCode::OK && got.data() == "1", "state");
    item->mutable_etag()->set_value("12345");
    item->mutable_options()->set_concurrency(common::StateOptions::CONCURRENCY_FIRST_WRITE);
    Empty empty;
    Want(Call(&Stub::SaveState, save, empty) == StatusCode::ABORTED, "a stale etag");
  }

  void Secrets() {
    runtime::GetSecretRequest get;
    get.set_store_name("secrets");
    get.set_key("password");
    runtime::GetSecretResponse got;
    Want(Call(&Stub::GetSecret, get, got) == StatusCode::OK &&
             got.data().at("password") == "s3cret", "a secret");
  }

  runtime::InvokeServiceRequest Method(const std::string& name, const std::string& data) {
    runtime::InvokeServiceRequest request;
    request.set_id(id_);
    request.mutable_message()->set_method(name);
    request.mutable_message()->set_content_type("text/plain");
    request.mutable_message()->mutable_data()->set_value(data);
    return request;
  }

  std::string Invoke(const std::string& name, const std::string& data) {
    common::InvokeResponse response;
    Want(Call(&Stub::InvokeService, Method(name, data), response) == StatusCode::OK, name);
    return response.data().value();
  }

  // Waits until the application tells that something came.
  void Comes(const std::string& what) {
    const auto deadline = std::chrono::steady_clock::now() + kTimeout;
    while (Invoke("count", what) == "0") {
      Want(std::chrono::steady_clock::now() < deadline, "it comes: " + what);
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
  }

  template <typename Method, typename Request>
  void Done(Method method, const Request& request) {
    Empty empty;
    Want(Call(method, request, empty) == StatusCode::OK, request.GetTypeName());
  }

  template <typename Method, typename Request, typename Response>
  StatusCode Call(Method method, const Request& request, Response&& response) {
    ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + kTimeout);
    const Status status = ((*stub_).*method)(&context, request, &response);
    if (!status.ok()) std::cerr << status.error_code() << " " << status.error_message() << "\n";
    return status.error_code();
  }

  static void Want(bool is, const std::string& what) {
    if (is) return;
    std::cerr << "not so: " << what << "\n";
    std::exit(1);
  }

  std::unique_ptr<Stub> stub_;
  std::string id_;
};

int main(int count, char** arguments) {
  if (count != 3) {
    std::cerr << "usage: client GRPC_PORT APP_ID\n";
    return 2;
  }
  Client(std::string("127.0.0.1:") + arguments[1], arguments[2]).Check();
}
